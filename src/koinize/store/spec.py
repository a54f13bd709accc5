"""Where koinize.yaml says that artifacts are kept."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from koinize.frozen import Frozen
from koinize.store.bucket import Bucket
from koinize.store.folder import Folder
from koinize.store.home import Home
from koinize.store.objects import EXTRAS, Objects
from koinize.store.place import Place

SCHEMES = "|".join(EXTRAS)
PART = "[A-Za-z0-9][A-Za-z0-9._-]*"
URL = re.compile(f"(?:{SCHEMES})://{PART}(?:/{PART})*/?")
EXAMPLES = ", ".join(f"{scheme}://BUCKET/PREFIX" for scheme in EXTRAS)
GIGABYTE = 1_000_000_000


def _object_store(url: str) -> str:
    if "@" in url or "?" in url:
        raise ValueError("is no place for credentials; docs/store.md says where they come from")
    if not URL.fullmatch(url):
        raise ValueError(f"is no address of an object store such as {EXAMPLES}")
    return url.rstrip("/")


def _or_url(schema: dict[str, Any]) -> None:
    """Let the JSON Schema take the address alone, too."""
    mapping = dict(schema)
    schema.clear()
    schema["anyOf"] = [mapping, {"type": "string"}]


class StoreSpec(Frozen):
    """The object store that holds a project's artifacts; a text is its address."""

    model_config = ConfigDict(json_schema_extra=_or_url)

    url: Annotated[str, AfterValidator(_object_store)] = Field(
        description=f"such as {EXAMPLES}; one for each project"
    )
    cache_gigabytes: Annotated[float, Field(ge=0)] = Field(
        default=100, description="of copies on this machine, beyond which the oldest go"
    )

    @model_validator(mode="before")
    @classmethod
    def _address_alone(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value


def place(home: Home, store: StoreSpec | None) -> Place:
    """The place that this means; a folder of this machine without one."""
    if store is None:
        return Folder(home)
    return Bucket(home, Objects(store.url), round(store.cache_gigabytes * GIGABYTE))
