"""From the bytes of a photo to its faces and what the model says of each."""
