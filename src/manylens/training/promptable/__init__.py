"""Training to be prompted: clicks and boxes are simulated, answers are judged, and clicks follow where they are wrong.

After "Segment Anything" (Kirillov et al., 2023), appendix A: :mod:`.boxes` and :mod:`.clicks` simulate a person,
:mod:`.losses` judge masks, :mod:`.rounds` asks several times about each object.
"""
