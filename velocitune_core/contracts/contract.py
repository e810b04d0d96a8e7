"""Base classes of the JSON files that one stage writes and the next reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from velocitune_core.config import describe_problems
from velocitune_core.files import RepeatedKeyError, unique_keys, write_text

SchemaVersion = Literal[3]  # raised whenever a field of any of the files is added, renamed or removed
SCHEMA_VERSION: SchemaVersion = 3


class ContractError(ValueError):
    """A stage's file that is missing, malformed or of another schema version."""


class Contract(BaseModel):
    """A stage's JSON file: written atomically, and validated when it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: SchemaVersion = SCHEMA_VERSION  # may be left out of a file written by hand

    def write(self, path: Path) -> None:
        """Write the file, replacing an older one. Raises OSError if that fails; the older file then stays."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and validate the file.

        Raises ContractError naming the file, and its schema version if that is another, or else each wrong field.
        """
        try:
            text = path.read_text(encoding="utf-8")
            found = cls.model_validate_json(text)
            json.loads(text, object_pairs_hook=unique_keys)  # pydantic takes the last of a key that is there twice
            return found
        except FileNotFoundError:
            raise ContractError(f"{path}: no such file; run the stage that makes it") from None
        except ValidationError as error:
            versions = [each["input"] for each in error.errors() if each["loc"] == ("schema_version",)]
            if versions:  # its other fields have the names of that version
                raise ContractError(
                    f"{path}: has schema version {versions[0]!r}, and this version of Velocitune reads "
                    f"{SCHEMA_VERSION}; run the stage that makes it again"
                ) from None
            raise ContractError(
                f"{path}: not a valid {cls.__name__} file:\n{describe_problems(error, of=cls)}"
            ) from None
        except RepeatedKeyError as error:
            raise ContractError(f"{path}: {error}; remove one") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ContractError(f"{path}: not JSON: {error}") from None


class Part(BaseModel):
    """Base of the objects inside a stage's file; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
