"""What a pool is asked to keep ready, from the settings of a kernel."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace

from ..engines.protocol import EngineInfo
from ..kernel_container import container_request, guest_settings
from ..spec import Spec
from ..user import choose as choose_user
from ..workdir import Workdir
from .ledger import Ledger, Wanted
from .recipe import Recipe, place


def recipe_for(spec: Spec, info: EngineInfo, mounts: Workdir, environ: Mapping[str, str], *, encrypts: bool) -> Recipe:
    """The containers in which a kernel of these settings may start. `encrypts`: this Jupyter knows CurveZMQ."""
    request = container_request(spec, info, mounts, choose_user(spec, info), labels={})
    settings = guest_settings(spec, mounts)
    return Recipe.of(info.engine, place(environ), request, settings, encrypts and not spec.argv)


def want(ledger: Ledger, recipe: Recipe, spec: Spec) -> Wanted | None:
    """The ledger has the recipe as wanted now, with what is known of it; where the pool is turned off, not any more."""
    if not spec.pool_size:
        if ledger.wanted_by(recipe.key):
            ledger.forget(recipe.key)
        return None
    known = ledger.wanted_by(recipe.key) or Wanted(recipe, 0, 0.0, "", 0.0)
    wanted = replace(known, size=spec.pool_size, ttl=spec.pool_ttl, last_used=time.time())
    ledger.want(wanted)
    return wanted


def asked_of_engines(spec: Spec, environ: Mapping[str, str]) -> str:
    """Under what the answer to "which engine?" is remembered."""
    return json.dumps([spec.engine, spec.require_vm, sorted(place(environ).items())])
