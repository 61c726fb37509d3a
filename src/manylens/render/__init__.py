"""Results for people: drawn on the picture, said in a line, and written as files (floor 3)."""

from manylens.render.coco import coco_json
from manylens.render.draw import draw
from manylens.render.files import write_result
from manylens.render.say import say

__all__ = ["coco_json", "draw", "say", "write_result"]
