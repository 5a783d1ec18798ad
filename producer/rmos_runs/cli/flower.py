"""``rmos flower``: Celery's pages of tasks, workers and queues."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from rmos_runs.cli.context import DEFAULT_HOME, HomeOption, err
from rmos_runs.local.home import Home


def flower(
    *,
    address: Annotated[
        str, typer.Option(envvar="FLOWER_ADDRESS", help="Address to listen on; by default only loopback.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="FLOWER_PORT", min=1, max=65_535, help="Port to listen on.")
    ] = 5555,
    allow_control: Annotated[
        bool,
        typer.Option(
            "--allow-control",
            help="Let whoever may look revoke tasks, change pools and shut workers down too.",
        ),
    ] = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Run Flower alone: pages of tasks, workers and queues. The pages change nothing.

    FLOWER_BASIC_AUTH is user:password of who may look; beside `rmos up` it is that of the home. Without it
    Flower serves this machine only, and never its controls. Other FLOWER_* variables are Flower's own.
    """
    place = Home(home)
    environment = {
        **os.environ,
        "RMOS_BROKER_URL": place.producer_settings().broker_url.get_secret_value(),
        "FLOWER_ADDRESS": address,
        "FLOWER_PORT": str(port),
    }
    if allow_control:
        environment["FLOWER_READ_ONLY"] = "false"
    addresses = None if "RMOS_BROKER_URL" in os.environ else place.addresses()
    if addresses is not None and addresses.flower_auth and not environment.get("FLOWER_BASIC_AUTH"):
        environment["FLOWER_BASIC_AUTH"] = addresses.flower_auth
        err.print(f"user, password: flower_auth in {place.root}/up.json", markup=False)
    # Passwords are in the environment: every process list shows arguments.
    program = [sys.executable, "-m", "rmos_worker.flower"]
    os.execve(sys.executable, program, environment)  # noqa: S606 - becomes it
