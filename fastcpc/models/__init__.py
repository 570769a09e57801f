"""Networks: backbones, the prototype head, and the forms of BatchNorm."""
