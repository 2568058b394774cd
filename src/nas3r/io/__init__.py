"""Files in and out: images, video, splats, cameras."""
