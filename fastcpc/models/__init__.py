"""Networks: backbones, the classifier, the projector and the prototypes."""
