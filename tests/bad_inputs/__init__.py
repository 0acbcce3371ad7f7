"""Every kind of bad input, and what is said to it: ``make bad-inputs`` prints the table, the tests run the cases."""

from __future__ import annotations

from tests.bad_inputs.case import BadInput
from tests.bad_inputs.data import DATA
from tests.bad_inputs.machine import MACHINE
from tests.bad_inputs.parameters import PARAMETERS
from tests.bad_inputs.sources import SOURCES
from tests.bad_inputs.stages import STAGES

CASES: tuple[BadInput, ...] = (*PARAMETERS, *DATA, *SOURCES, *STAGES, *MACHINE)
