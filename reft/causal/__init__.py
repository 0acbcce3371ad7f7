"""Where a network holds a variable: interchange interventions, and distributed alignment search.

A hypothesis says what a network computes (:class:`Hypothesis`), counterfactual rows what it would then answer
(:class:`Counterfactual`), a probe reads and edits the network's states at a site (:class:`Probe`), and a swap puts a
part of another input's state there (:class:`Swap`). :func:`interchange_accuracy` counts how often the network then
answers as the hypothesis says; :func:`learn_rotation` finds the part; :func:`search_units` looks for it among units.
"""

from reft.causal.accuracy import Accuracy, answer_accuracy, interchange_accuracy, unchanged_accuracy
from reft.causal.counterfactuals import Counterfactual, Hypothesis, Taken, moved_variables
from reft.causal.das import DasConfig, DasStep, learn_rotation, measured
from reft.causal.decoder import ConeProbe, DecoderProbe, LayerSite, probe_decoder, token_places
from reft.causal.localist import UnitFit, search_units, unit_blocks, unit_choices
from reft.causal.probes import ModuleProbe, Probe
from reft.causal.swaps import BoundlessSwap, RotatedSwap, Swap, UnitSwap, VectorSwap

__all__ = [
    "Accuracy",
    "BoundlessSwap",
    "ConeProbe",
    "Counterfactual",
    "DasConfig",
    "DasStep",
    "DecoderProbe",
    "Hypothesis",
    "LayerSite",
    "ModuleProbe",
    "Probe",
    "RotatedSwap",
    "Swap",
    "Taken",
    "UnitFit",
    "UnitSwap",
    "VectorSwap",
    "answer_accuracy",
    "interchange_accuracy",
    "learn_rotation",
    "measured",
    "moved_variables",
    "probe_decoder",
    "search_units",
    "token_places",
    "unchanged_accuracy",
    "unit_blocks",
    "unit_choices",
]
