"""The clicking kit: what SAM, SAM 2 and SAM 3 share between an encoded picture and its masks.

:mod:`.prompts` brings clicks, boxes and masks into the network's pixels, :mod:`.decoder` says what a mask decoder is,
:mod:`.masks` brings its logits to the photo's size, :mod:`.answer` makes the result, :mod:`.everything` asks a grid of
points.
"""
