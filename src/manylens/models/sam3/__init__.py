"""SAM 3: everything that words or an example name, in pictures and videos, and clicks as in SAM 2."""
