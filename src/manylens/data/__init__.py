"""Data sets: pictures with labels, masks, splits and any columns, from and to the formats of the field (floor 6)."""
