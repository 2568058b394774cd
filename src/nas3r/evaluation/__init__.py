"""Novel views, poses and depth measured by the field's protocols."""
