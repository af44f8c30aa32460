"""The reference page of the recipe, written from the descriptions of its keys: `stillhouse reference`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.recipe.recipe import Recipe

PAGE = Path("docs/reference/recipe.md")
INTRODUCTION = """\
# Recipe reference

A recipe, `params.yaml`, holds every setting of a build. It has no defaults: every key below is written
down, except for those marked optional. `stillhouse check FILE` checks a recipe. Equations, tables and figures are those
of the paper, [arXiv 2602.15547](https://arxiv.org/abs/2602.15547).

`stillhouse reference` writes this page from the descriptions in `stages/recipe/`: edit them there.
"""
_TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}

# JSON schema of the recipe, of a section or of a key.
Schema = dict[str, Any]


def main(file: Path = PAGE, /) -> None:
    """Write the reference page of the recipe.

    Args:
        file: Markdown file to write.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(render(), encoding="utf-8")
    print(f"{file}: written")


def render() -> str:
    """Render the page as Markdown: a heading and a table of keys for each section of the recipe."""
    schema = Recipe.model_json_schema()
    sections = schema["$defs"]
    headings: dict[str, list[str]] = {}
    for path, name in _walk(schema, sections, ""):
        headings.setdefault(name, []).append(path)
    anchors = {name: f"#{_slug(paths[0])}" for name, paths in headings.items()}
    parts = [INTRODUCTION, _table(schema, anchors)]
    for name, (path, *others) in headings.items():
        parts.append(f"{'##' if '.' not in path else '###'} {path}\n")
        parts.append(f"{sections[name]['description']}\n")
        if others:
            parts.append(f"The same keys are at {', '.join(f'`{other}`' for other in others)}.\n")
        parts.append(_table(sections[name], anchors))
    return "\n".join(parts)


def _walk(section: Schema, sections: dict[str, Schema], path: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the name of each section below a section, in the order of the recipe's keys."""
    for key, field in section["properties"].items():
        names = [reference["$ref"].rpartition("/")[2] for reference in _references(field)]
        for name in names:
            kind = sections[name]["properties"].get("kind", {}).get("const")
            here = f"{path}{key} ({kind})" if len(names) > 1 else f"{path}{key}"
            yield here, name
            yield from _walk(sections[name], sections, f"{here}.")


def _references(field: Schema) -> list[Schema]:
    """List the references to sections in a key's schema."""
    if "$ref" in field:
        return [field]
    nested = [*field.get("anyOf", []), *field.get("oneOf", []), field.get("items"), field.get("additionalProperties")]
    return [reference for part in nested if isinstance(part, dict) for reference in _references(part)]


def _table(section: Schema, anchors: dict[str, str]) -> str:
    rows = ["| key | type | allowed values | meaning |", "| --- | --- | --- | --- |"]
    for key, field in section["properties"].items():
        optional = "Optional. " if "default" in field else ""
        cells = (f"`{key}`", _type(field, anchors), _allowed(field), optional + field["description"])
        rows.append("".join(f"| {cell.replace('|', '&#124;')} " for cell in cells) + "|")
    return "\n".join(rows) + "\n"


def _type(field: Schema, anchors: dict[str, str]) -> str:
    match field:
        case {"$ref": reference}:
            return f"[section]({anchors[reference.rpartition('/')[2]]})"
        case {"anyOf": choices} | {"oneOf": choices}:
            return " or ".join(_type(choice, anchors) for choice in choices)
        case {"prefixItems": items}:
            return f"list of {len(items)} {_type(items[0], anchors)}s"
        case {"type": "array", "items": item}:
            return f"list of {_type(item, anchors)}"
        case {"type": "object", "additionalProperties": value}:
            return f"names, each with {_type(value, anchors)}"
        case _:
            return _TYPES[field["type"]]


def _allowed(field: Schema) -> str:
    """Describe the values that a key may have beyond its type."""
    nested = field.get("anyOf") or [field[name] for name in ("items", "additionalProperties") if name in field]
    rules = [_allowed(part) for part in nested if isinstance(part, dict)]
    if "const" in field:
        rules.append(f"`{field['const']}`")
    if "enum" in field:
        rules.append(", ".join(f"`{value}`" for value in field["enum"]))
    if "rule" in field:
        rules.append(field["rule"])
    elif "pattern" in field:
        rules.append(f"matches `{field['pattern']}`")
    rules.append(" and ".join(f"{words} {field[name]:g}" for name, words in _BOUNDS.items() if name in field))
    if "minItems" in field and "prefixItems" not in field:
        rules.append(f"{field['minItems']} or more")
    return "; ".join(rule for rule in rules if rule)


def _slug(heading: str) -> str:
    """Name the anchor of a heading as GitHub and Python-Markdown do."""
    return "".join(letter for letter in heading if letter.isalnum() or letter in "-_ ").replace(" ", "-").lower()


if __name__ == "__main__":
    main()
