"""What can be evaluated: novel views, pose, depth, and pose and views under stress."""
