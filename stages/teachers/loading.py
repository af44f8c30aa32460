"""The teacher that a recipe names, by its kind."""

from stages.recipe.embed import Embed, Endpoint, SentenceTransformerFolder
from stages.recipe.engine import Engine
from stages.recipe.paths import VECTORS
from stages.teachers.endpoint import EndpointTeacher
from stages.teachers.sentence_transformer import SentenceTransformerTeacher
from stages.teachers.teacher import Teacher
from stages.teachers.transformer import TransformerTeacher


def load_teacher(section: Embed, engine: Engine) -> Teacher:
    """Return the recipe's teacher, which loads its weights when it first embeds."""
    match section.teacher:
        case Endpoint() as endpoint:
            return EndpointTeacher(endpoint, VECTORS / "probes")
        case SentenceTransformerFolder() as model:
            return SentenceTransformerTeacher(model, section, engine)
        case model:
            return TransformerTeacher(model, section, engine)
