"""The constants of PURER; "released" marks the values that the paper's released scripts pass."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bench.contract import Budget, Config, TaskShape, added
from bench.errors import BenchError
from bench.inversion.augmentation import Augmentation
from bench.inversion.losses import InversionWeights

RELEASED_META_ITERATIONS = 60_000
RELEASED_ADVERSARIAL_START = 4_000


class PurerConfig(Config):
    """Constants of episode curriculum inversion; None takes what the protocol or budget says."""

    cross_entropy_weight: float = Field(1.0, ge=0)
    """factor of the teacher's cross-entropy in the inversion loss. Released."""
    tv_weight: float = Field(1e-4, ge=0)
    """factor of the total variation. Released."""
    bn_weight: float = Field(1e-2, ge=0)
    """factor of the distance to the BN statistics. Released."""
    l2_weight: float = Field(1e-5, ge=0)
    """factor of the norm of the pixels. Released."""
    jitter: int = Field(2, ge=0)
    """largest shift of a teacher's block in a pixel step, each way. Released. Unit: px"""
    pixel_lr: float | None = Field(None, gt=0)
    """Adam's rate on the pixels; None: the protocol's (0.25 released). Unit: normalised pixels"""
    clip_pixels: float | None = Field(None, gt=0)
    """bound on the magnitude of a pixel; None: the protocol's (none released).
    Unit: normalised pixels"""
    pseudo_images_per_class: int | None = Field(None, ge=2)
    """pseudo images of each class; None: the protocol's, or k_shot + n_query where that has none.
    Released: k_shot + 15."""
    curriculum: bool = True
    """whether the gradient switch may make pixel steps adversarial. Paper: yes."""
    adversarial_start: int | None = Field(None, ge=1)
    """meta-iteration that arms the switch first; None: 1/15 of the meta-iterations, at least 1,
    which is the released 4,000 of 60,000"""
    adversarial_patience: int = Field(6, ge=1)
    """meta-iterations without a better pseudo-query accuracy that arm the switch. Released."""
    adversarial_scale: float = Field(10.0, ge=0)
    """factor of the outer loss in an adversarial pixel step. Released."""
    pixels: Literal["dynamic", "fixed", "noise"] = added("dynamic")
    """`dynamic`: pixel steps and meta steps alternate (released). `fixed`: as many pixel steps are
    made before the first meta-iteration, none after. `noise`: none at all. Ours, for the ablation;
    without pixel steps in between there is no curriculum."""
    random_switches: dict[int, int] = added({})
    """by k_shot: the number of adversarial pixel steps that are made at random meta-iterations
    after `adversarial_start`, in place of those of the gradient switch. Empty: the gradient switch.
    Ours, for the ablation."""
    meta_iterations: int | None = Field(None, ge=1)
    """pixel and meta steps; None: the budget's (60,000 released)"""
    meta_iterations_factor: int = Field(1, ge=1)
    """multiple of the budget's meta-iterations that are made. Ours; released: 1."""
    pixel_warmup: int = Field(0, ge=0)
    """pixel steps before the first meta-iteration. Ours; released: none."""
    pixel_every: int = Field(1, ge=1)
    """meta-iterations for each pixel step. Ours; released: 1."""
    initialisation: Literal["random", "average", "best_teacher"] | None = None
    """where meta-training starts; None: the protocol's (average for one architecture, released).
    Ours."""
    other_fit: Literal["none", "distill_ensemble", "cross_teacher"] = added("none")
    """the method whose fit to the same pool is the start, in place of `initialisation`: the student
    of `distill_ensemble`, or the network of `cross_teacher` that is trained with random colours.
    Ours."""
    zero_head: bool = False
    """whether the head starts at zero. Ours, after Kao et al., "MAML is a Noisy Contrastive
    Learner in Classification", ICLR 2022 (arXiv 2106.15367); released: no."""
    feature_scale: float = Field(1.0, gt=0)
    """factor on the features where meta-training starts. One inner step from a zero head gives
    logits of the size of its square; near 0 the outer loss says little. Ours; released: 1."""
    feature_normalisation: Literal["none", "l2"] = added("none")
    """`l2`: ProtoNet meets features of length 1, in training and at test. Ours; released: none."""
    temperature: float = added(1.0, gt=0)
    """divisor of ProtoNet's squared distances between normalised features. Ours."""
    trained: Literal["all", "norms"] = added("all")
    """which parameters meta-training changes: all, or the scales and shifts of batch norm alone.
    Ours; released: all."""
    task_weight: float = added(1.0, ge=0)
    """factor of the loss of each pseudo task. 0: the meta-model is trained as a plain classifier of
    the pseudo images, and tasks are only scored. Ours; released: 1."""
    class_weight: float = added(0.0, ge=0)
    """factor of a classification loss over all pseudo classes, beside the loss of each pseudo task.
    Ours; released: none."""
    class_batch: int = added(128, ge=2)
    """pseudo images of the classification loss in a meta-iteration. Ours."""
    class_head_lr: float = added(1e-2, gt=0)
    """Adam's rate on the linear head of the classification loss, which starts at zero. Ours."""
    outer_lr: float | None = Field(None, gt=0)
    """Adam's rate in the meta step; None: the protocol's (1e-3 released)"""
    augment_flip: bool = False
    """whether images of pseudo tasks are mirrored at random. Ours; released: no."""
    augment_shift: int = Field(0, ge=0)
    """largest random shift of an image of a pseudo task, each way. Ours; released: 0. Unit: px"""
    augment_colour: float = Field(0.0, ge=0, lt=1)
    """strength of the random colours of an image of a pseudo task. Ours; released: 0."""
    teacher_memory_mb: int = Field(2048, ge=1)
    """memory that the activations of one teacher's pseudo images may take; a larger block is
    differentiated in chunks, to the same result but for rounding. Ours. Unit: MiB"""
    gallery_images_per_class: int = Field(2, ge=0)
    """pseudo images of each class that the log gets at start, middle and end. Ours."""

    @model_validator(mode="after")
    def _learn_something(self) -> PurerConfig:
        if self.task_weight == 0 and self.class_weight == 0:
            raise ValueError("task_weight and class_weight are both 0; set one above 0")
        return self

    @property
    def inversion_weights(self) -> InversionWeights:
        """The factors of the inversion loss."""
        return InversionWeights(
            self.cross_entropy_weight, self.bn_weight, self.tv_weight, self.l2_weight
        )

    @property
    def augmentation(self) -> Augmentation:
        """What happens to the images of pseudo tasks."""
        return Augmentation(self.augment_flip, self.augment_shift, self.augment_colour)

    def images_per_class(self, shape: TaskShape, protocols: int | None = None) -> int:
        """Return the pseudo images per class; at least one of them is a query.

        Args:
            shape: the tasks.
            protocols: the protocol's `pseudo_images_per_class`.

        Raises:
            BenchError: `pseudo_images_per_class` does not exceed k_shot.
        """
        wanted = self.pseudo_images_per_class or protocols or shape.k_shot + shape.n_query
        if wanted <= shape.k_shot:
            raise BenchError(
                f"pseudo_images_per_class {wanted} leaves no query beside "
                f"k_shot = {shape.k_shot} support images; set it to {shape.k_shot + 1} or more"
            )
        return wanted

    def total_iterations(self, budget: Budget) -> int:
        """Return the number of meta-iterations: its own, or a multiple of the budget's."""
        return self.meta_iterations or budget.meta_iterations * self.meta_iterations_factor

    def first_adversarial_iteration(self, meta_iterations: int) -> int:
        """Return the first meta-iteration that arms the switch, for a number of meta-iterations."""
        if self.adversarial_start is not None:
            return self.adversarial_start
        share = RELEASED_ADVERSARIAL_START / RELEASED_META_ITERATIONS
        return max(1, round(meta_iterations * share))

    def switches(self, k_shot: int) -> int:
        """Return the number of adversarial pixel steps at random meta-iterations, for this k_shot.

        Raises:
            BenchError: `random_switches` does not name k_shot.
        """
        if k_shot not in self.random_switches:
            raise BenchError(
                f"random_switches names k_shot {sorted(self.random_switches)}, not {k_shot}; add "
                "the number of adversarial steps that the gradient switch made for it"
            )
        return self.random_switches[k_shot]
