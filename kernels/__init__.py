"""Device code that the method needs, each op with its plain reference. Knows nothing of the rest of fastcpc."""

from .gmm_em import GroupOrder, MixtureFit, fit_gmm, order_groups
from .prototype_loss import prototype_loss, prototype_scores

__all__ = ["GroupOrder", "MixtureFit", "fit_gmm", "order_groups", "prototype_loss", "prototype_scores"]
