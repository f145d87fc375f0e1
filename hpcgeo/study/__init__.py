"""Studies: pretrain several models, judge each in several ways, here or as jobs; resumable."""
