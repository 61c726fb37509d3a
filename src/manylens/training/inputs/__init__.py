"""What networks are shown: pictures, their views, and the features of a frozen encoder that are kept."""
