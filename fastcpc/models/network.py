"""One network: backbone, linear classifier on its features, and prototype head."""

from torch import Tensor, nn

from fastcpc.models.prototype_head import PrototypeHead


class Network(nn.Module):
    """Backbone, classifier and prototype head, with two groups of parameters that are trained separately.

    backbone: images (B, C, H, W) to features (B, D); feature_dim: D; num_classes: K, 2 or more; head: for D and K.
    """

    def __init__(self, backbone: nn.Module, feature_dim: int, num_classes: int, head: PrototypeHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(feature_dim, num_classes)
        self.head = head
        self.feature_dim = feature_dim
        self.num_classes = num_classes
        self.frozen: tuple[nn.Module, ...] = ()  # modules that stay in evaluation mode, set by model.freeze

    def train(self, mode: bool = True) -> "Network":
        """As of every module, except that frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    @property
    def projector(self) -> nn.Module:
        """Features (B, D) to embeddings (B, d)."""
        return self.head.projector

    @property
    def prototypes(self) -> nn.Parameter:
        """The learned prototypes, one per class, (K, d)."""
        return self.head.prototypes

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) floating. Returns logits, (B, K)."""
        return self.classify(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W) floating. Returns features, (B, D)."""
        feat_BD: Tensor = self.backbone(images)
        return feat_BD

    def classify(self, feat_BD: Tensor) -> Tensor:
        """feat_BD: (B, D) floating. Returns logits, (B, K)."""
        logits_BK: Tensor = self.classifier(feat_BD)
        return logits_BK

    def embed(self, feat_BD: Tensor) -> Tensor:
        """feat_BD: (B, D) floating. Returns embeddings, (B, d); (B, d + 1) with cpc.normalise, the bias last."""
        return self.head.embed(feat_BD)

    def prototype_matrix(self) -> Tensor:
        """The matrix to multiply embeddings with, (K, d); (K, d + 1) with cpc.normalise, the last column ones."""
        return self.head.matrix()

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Parameters of backbone and classifier: trained in the warm-up and by MixMatch. Frozen ones are left out."""
        own = [*self.backbone.parameters(), *self.classifier.parameters()]
        return [parameter for parameter in own if parameter.requires_grad]

    def prototype_parameters(self) -> list[nn.Parameter]:
        """Parameters of projector and prototypes, scale and bias: trained by the prototype loss."""
        return list(self.head.parameters())
