"""Maps of whole scenes: what a model answers for every pixel, on the scene's own grid."""
