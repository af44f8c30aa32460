"""The meaning of columns, told by names in several languages, and by values where names do not settle it."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.corpus.normalisation import normalise
from stages.corpus.records import Row, text_of
from stages.corpus.text_length import count_words
from stages.recipe.fields import Kind

# Names of columns by role, the surest first. Names within a tier are equally sure.
WORDS: dict[str, tuple[str, ...]] = {
    "query": (
        "question questions query anchor frage pregunta pergunta domanda vraag 質問 问题 問題 問い 提问",
        "title subject titel betreff titre sujet objet título titulo asunto assunto titolo oggetto onderwerp summary "
        "headline タイトル 件名 标题 標題 主题",
    ),
    "document": (
        "answer answers response reply positive pos antwort réponse reponse respuesta resposta risposta antwoord "
        "resolution solution lösung loesung solución solucion solução solucao soluzione oplossing 回答 答え 答案",
        "document body text content description passage message beschreibung inhalt texte contenu description "
        "texto contenido descripción descripcion conteúdo conteudo descrição descricao testo contenuto descrizione "
        "tekst inhoud omschrijving 本文 文章 内容 正文 描述 説明",
    ),
    "label": (
        "label category topic intent class kategorie thema etikett catégorie categorie étiquette categoría categoria "
        "etiqueta tema tópico etichetta argomento カテゴリ カテゴリー 分類 分类 类别 標籤 标签",
        "tag tags section department queue type bereich rubrik abteilung",
    ),
    "score": ("score similarity similarité ähnlichkeit similitud similaridade punteggio スコア 類似度 得分 相似度",),
    "entity": ("product author thread entity url produkt produit producto produto prodotto auteur autor", "id docid"),
    "negative": ("neg negative negatives",),
    "text_a": ("sentence1 text1 sentencea texta",),
    "text_b": ("sentence2 text2 sentenceb textb",),
}
MAX_LABELS = 500
# Fewest values of an entity that is told by its name: fewer cannot be split into training, dev and test.
MIN_ENTITIES = 10
_QUESTION = re.compile(r"[?？؟]\s*$")


@dataclass(frozen=True)
class Column:
    """Facts about the values of a column in a sample of rows."""

    words: float  # median
    distinct: int
    filled: int
    questions: float  # share that ends in a question mark
    numbers: float  # share that is a number

    @property
    def is_text(self) -> bool:
        """Whether the values are texts of their own."""
        return self.filled > 0 and self.numbers < 0.5 and self.distinct > self.filled / 4

    @property
    def is_label(self) -> bool:
        """Whether few values stand for many rows."""
        return 2 <= self.distinct <= min(MAX_LABELS, self.filled / 2) and self.words <= 8


@dataclass(frozen=True)
class Roles:
    """The column of each role, with the reason, and what the table is a source of."""

    kind: Kind
    columns: Mapping[str, str]
    reasons: Mapping[str, str]
    negatives: tuple[str, ...]


def cell_text(row: Row, column: str) -> str:
    """Return the text of a cell as the reader does; empty where it has none."""
    try:
        return text_of(row.get(column))
    except TypeError:
        return ""


def column_facts(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Column]:
    """Describe the values of each column."""
    facts = {}
    for name in names:
        values = [text for row in rows if (text := normalise(cell_text(row, name)))]
        count = max(1, len(values))
        facts[name] = Column(
            statistics.median(map(count_words, values)) if values else 0.0,
            len(set(values)),
            len(values),
            sum(bool(_QUESTION.search(text)) for text in values) / count,
            sum(bool(re.fullmatch(r"[-+]?\d+([.,]\d+)?", text)) for text in values) / count,
        )
    return facts


def find_roles(facts: Mapping[str, Column], given: Mapping[str, str]) -> Roles:
    """Find the roles of columns.

    Raises:
        ValueError: a given column is not there, several columns fit a role, or none does.
    """
    for role, name in given.items():
        if name not in facts:
            raise ValueError(f"--{role} {name}: no such column; the columns are {', '.join(facts)}")
        if other := next((other for other in given if other != role and given[other] == name), None):
            raise ValueError(f"--{role} and --{other} both name the column {name}; give each its own")
    columns, reasons = dict(given), dict.fromkeys(given, "as given")
    free = [name for name in facts if name not in given.values()]
    negatives = tuple(name for name in free if _tier(name, "negative") is not None)
    free = [name for name in free if name not in negatives]
    sides = [next((name for name in free if _tier(name, side) is not None), None) for side in ("text_a", "text_b")]
    if "score" in given or any(_tier(name, "score") is not None and facts[name].numbers > 0.9 for name in free):
        _by_name("score", [name for name in free if facts[name].numbers > 0.9], columns, reasons)
    if None not in sides:
        columns = {"query": str(sides[0]), "document": str(sides[1])} | columns
        reasons = {"query": "by its name", "document": "by its name"} | reasons
    free = [name for name in free if name not in columns.values()]
    _by_name("label", [name for name in free if facts[name].is_label], columns, reasons)
    texts = [name for name in free if facts[name].is_text and name not in columns.values()]
    for role in ("query", "document"):
        _by_name(role, [name for name in texts if name not in columns.values()], columns, reasons)
    left = [name for name in texts if name not in columns.values() and _tier(name, "entity") is None]
    _by_values(left, facts, columns, reasons)
    labels = unnamed_labels(facts, columns)
    if "label" not in columns and len(columns) == 1 and len(labels) == 1:
        columns["label"], reasons["label"] = labels[0], "by its values, which repeat"
    rest = [name for name in free if name not in columns.values()]
    rest = [name for name in rest if MIN_ENTITIES <= facts[name].distinct < facts[name].filled]
    _by_name("entity", rest, columns, reasons)
    return Roles(_kind(columns, facts), columns, reasons, negatives)


def _kind(columns: Mapping[str, str], facts: Mapping[str, Column]) -> Kind:
    if "query" in columns and "document" in columns:
        return "scored" if "score" in columns else "pairs"
    if "label" in columns and ("query" in columns or "document" in columns):
        return "labelled"
    seen = ", ".join(
        f"{name} ({about.distinct} different values in {about.filled} rows)" for name, about in facts.items()
    )
    raise ValueError(
        f"expected a column of questions and one of their answers, or texts with a label of 2 to {MAX_LABELS} values, "
        f"got {seen}; name them: --query COLUMN --document COLUMN, or --document COLUMN --label COLUMN. Texts alone: "
        "write each into a .txt or .md file, and give the folder; questions are then made of headings and first "
        "sentences"
    )


def unnamed_labels(facts: Mapping[str, Column], columns: Mapping[str, str]) -> list[str]:
    """List the columns without a role whose few values repeat, as those of a label do."""
    return [name for name, about in facts.items() if about.is_label and name not in columns.values()]


def are_alike(columns: Mapping[str, str]) -> bool:
    """Whether the names of two texts say that both are of one kind, as sentence1 and sentence2 do."""
    return "query" in columns and _tier(columns["query"], "text_a") is not None


def _tier(name: str, role: str) -> int | None:
    """Return how sure the name of a column is for a role: 0 is surest, None does not fit."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()
    parts = {part for part in re.split(r"[\W_]+", spaced) if part}
    parts |= {re.sub(r"[\W_]+", "", spaced)} | {part.rstrip("0123456789") for part in parts if role == "negative"}
    for tier, words in enumerate(WORDS[role]):
        if parts & set(words.split()):
            return tier
    return None


def _by_name(role: str, names: Sequence[str], columns: dict[str, str], reasons: dict[str, str]) -> None:
    if role in columns:
        return
    tiers = {name: tier for name in names if (tier := _tier(name, role)) is not None}
    best = [name for name, tier in tiers.items() if tier == min(tiers.values())]
    if len(best) > 1 and role != "entity":
        options = " or ".join(f"--{role} {name!r}" if " " in name else f"--{role} {name}" for name in best)
        raise ValueError(f"{role}: the columns {' and '.join(best)} both fit; say {options}")
    if best:
        columns[role], reasons[role] = best[0], "by its name"


def _by_values(
    left: Sequence[str], facts: Mapping[str, Column], columns: dict[str, str], reasons: dict[str, str]
) -> None:
    """Take the texts that are left for roles that no name fits: questions end in a mark or are much the shorter."""
    missing = [role for role in ("query", "document") if role not in columns]
    if len(missing) == 1 and len(left) == 1:
        columns[missing[0]], reasons[missing[0]] = left[0], "the only other text"
    if len(missing) < 2 or not left:
        return
    if len(left) == 1:
        columns["document"], reasons["document"] = left[0], "the only text"
        return
    short, long = sorted(left, key=lambda name: facts[name].words)[:: max(1, len(left) - 1)][:2]
    asks = facts[short].questions >= 0.3 and facts[long].questions < 0.1
    if len(left) > 2 or not (asks or facts[short].words * 2 <= facts[long].words):
        options = f"--query {short!r} --document {long!r}, or the other way round"
        raise ValueError(
            f"the columns {', '.join(left)} are texts, and neither names nor values tell them apart; say {options}"
        )
    columns["query"], columns["document"] = short, long
    evidence = f"{facts[short].questions:.0%} end in a question mark" if asks else "much the shorter text"
    reasons["query"], reasons["document"] = evidence, f"the longer text, {facts[long].words:.0f} words"
