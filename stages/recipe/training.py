"""Settings that several training phases share: the schedule of a phase, and a source of its mixture."""

from pydantic import Field

from stages.recipe.fields import BatchSize, Count, Name, NotNegative, Positive, Section, Share, Tokens


class Schedule(Section):
    """How long and how fast a phase trains. A step is one update of the weights by AdamW."""

    steps: Count = Field(description="Number of updates of the weights.")
    learning_rate: Positive = Field(
        description="Highest learning rate of AdamW; it is reached at the end of the warm-up and then falls to zero "
        "along a cosine. The paper distils at 1e-4 (table A1)."
    )
    warmup_ratio: Share = Field(
        description="Share of the steps in which the learning rate rises from zero to its highest value."
    )
    weight_decay: NotNegative = Field(
        description="Decoupled weight decay of AdamW, for matrices only; vectors and scalars do not decay."
    )
    max_grad_norm: Positive = Field(description="Gradients whose L2 norm is larger are scaled down to this norm.")
    evaluate_every: Count = Field(
        description="Steps between two evaluations on the dev split; the last step is always evaluated."
    )
    checkpoint_every: Count = Field(
        description="Steps between two checkpoints; a killed run loses at most this many steps."
    )


class BatchSchedule(Schedule):
    """A schedule whose batches all have one size."""

    batch_size: BatchSize = Field(description="Rows of a batch on each process: pairs, texts or anchors.")


class Draw(Section):
    """A source of a mixture. Each step draws one of them, with its own text length and batch size."""

    source: Name = Field(description="Name of a source in `curate.sources`.")
    weight: Positive = Field(
        description="How often a step draws this source, relative to the weights of the other sources."
    )
    max_tokens: Tokens = Field(description="Tokens that the student reads of each text; the rest is cut off.")
    batch_size: BatchSize = Field(description="Rows of a batch of this source, on each process.")
