"""Base class of test cases."""

from abc import ABC, abstractmethod

from .environment import Environment
from .hosts import Family
from .programs import Program
from .protocols import Protocol


class Case(ABC):
    """A test case. It is shared by attempts, so it keeps no state."""

    protocol: Protocol
    family: Family

    @property
    @abstractmethod
    def subject(self) -> str:
        """What the case is about, beside protocol and family."""

    @property
    @abstractmethod
    def cells(self) -> tuple[str, str, str]:
        """Seeder, leecher and access list in the printed table."""

    @abstractmethod
    def programs(self) -> tuple[type[Program], ...]:
        """What has to be installed for it, beside what the protocol needs."""

    @abstractmethod
    def run(self, environment: Environment) -> None:
        """Returns if the case passed, raises `Failure` if not."""

    @property
    def name(self) -> str:
        """What `--case` looks for substrings in."""
        return f"{self.subject}, {self.protocol.name} {self.family.value}"

    def all_programs(self) -> list[type[Program]]:
        """What has to be installed."""
        return list(dict.fromkeys((*self.programs(), *self.protocol.all_programs())))

    def is_heavy(self) -> bool:
        """Whether it had better not run beside others like it."""
        return any(program.is_heavy for program in self.all_programs())
