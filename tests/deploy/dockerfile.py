"""Parses the parts of a Dockerfile that tests need."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a Dockerfile."""

    name: str
    base: str
    instructions: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The arguments of each instruction, such as COPY, in the file's order."""

    def one(self, instruction: str) -> str:
        """Returns the arguments of an instruction that appears once."""
        (arguments,) = self.instructions[instruction]
        return arguments

    def command(self, instruction: str) -> Any:
        """Returns the JSON list of an instruction such as ENTRYPOINT."""
        return json.loads(re.search(r"\[.*\]$", self.one(instruction))[0])  # type: ignore[index]

    @property
    def environment(self) -> dict[str, str]:
        """Returns the variables that ENV sets."""
        return dict(
            assignment.split("=", 1)
            for arguments in self.instructions["ENV"]
            for assignment in arguments.split()
        )

    @property
    def copied_from_context(self) -> set[str]:
        """Returns the files and folders of the checkout that COPY adds."""
        return {
            source
            for arguments in self.instructions["COPY"]
            if not arguments.startswith("--from=")
            for source in arguments.split()[:-1]
        }


def parse_stages(text: str) -> dict[str, Stage]:
    """Returns the stages by the name in their `FROM`, in order."""
    without_comments = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", " ", without_comments)
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in filter(None, map(str.strip, joined.splitlines())):
        instruction, arguments = line.split(maxsplit=1)
        if instruction == "FROM":
            base, _, name = arguments.split()
            current = stages[name] = Stage(name=name, base=base)
        elif current is not None:
            current.instructions[instruction].append(arguments.strip())
    return stages
