"""The access file: which certificates belong to whom, and quotas. People write it, in TOML."""

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from leadline.server.access.quotas import UNLIMITED, Quotas
from leadline.server.access.tokens import (
    GRANTED_ROLES,
    AccessFileError,
    IdentityName,
    RoleName,
    explained,
)
from leadline.server.identity import Identity


class CertificateHolder(BaseModel):
    """Whose a certificate is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: IdentityName
    role: RoleName

    @property
    def identity(self) -> Identity:
        """The holder."""
        return Identity(name=self.name, role=GRANTED_ROLES[self.role])


class AccessFile(BaseModel):
    """The contents of an access file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificates: dict[str, CertificateHolder] = {}
    """By the URI of the certificate, or its common name."""

    quotas: Quotas = UNLIMITED


def read_access_file(path: Path) -> AccessFile:
    """Reads an access file.

    Raises:
        OSError: it cannot be read.
        AccessFileError: it is not TOML, or has an unknown key or a wrong value.
    """
    try:
        return AccessFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise AccessFileError(f"the access file {path}: {explained(error)}") from error
    except (ValueError, RecursionError) as error:  # also of numbers and lists without an end
        raise AccessFileError(f"the access file {path} is not valid TOML: {error}") from error
