"""Settings that the training phases share: their schedule, and a source that a step draws from."""

from stages.recipe.fields import BatchSize, Count, Name, NotNegative, Positive, Section, Share, Tokens


class Training(Section):
    steps: Count
    learning_rate: Positive
    warmup_ratio: Share
    weight_decay: NotNegative
    max_grad_norm: Positive
    evaluate_every: Count
    checkpoint_every: Count


class RowTraining(Training):
    batch_size: BatchSize


class Draw(Section):
    source: Name
    weight: Positive
    max_tokens: Tokens
    batch_size: BatchSize
