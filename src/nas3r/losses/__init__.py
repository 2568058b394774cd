"""Photometric losses for training from pixels, and supervised ones for fine-tuning."""

from nas3r.losses.photometric import PhotometricConfig, PhotometricLoss, image_psnr
from nas3r.losses.supervised import SupervisedConfig, SupervisedLoss

__all__ = ["PhotometricConfig", "PhotometricLoss", "SupervisedConfig", "SupervisedLoss", "image_psnr"]
