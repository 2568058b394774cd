"""Columns of the table of splats that the kernels read: 16 floats, one cache line, per splat."""

COLUMNS = 16
X, Y = 0, 1  # centre, pixels
XX, XY, YY = 2, 3, 4  # conic, 1/px^2
OPACITY = 5
RED, GREEN, BLUE = 6, 7, 8
DEPTH = 9
DIFFERENTIABLE = 10  # columns before this one receive gradients; those after follow from them
RADIUS_X, RADIUS_Y = 10, 11  # half extents of the region where alpha reaches 1/255; 0: culled
LOG2_OPACITY = 12
HALF_CHORD = 13  # half width of that region in the row through the centre
SLOPE = 14  # by how much the middle of a row's chord moves per row, negated
INVERSE_RADIUS_Y = 15
