"""From the name of a policy in the settings to the policy."""

from __future__ import annotations

from collections.abc import Callable

from rmos_shared.errors import SettingsInvalid
from rmos_worker.policies.base import ApprovalPolicy
from rmos_worker.policies.fail_closed import FailClosed
from rmos_worker.policies.green_auto import GreenAutoPolicy
from rmos_worker.policies.manual import ManualPolicy
from rmos_worker.policies.unsafe import UnsafeApproveAll

POLICIES: dict[str, Callable[[], ApprovalPolicy]] = {
    "green_auto": GreenAutoPolicy,
    "manual": ManualPolicy,
    "unsafe_approve_all": UnsafeApproveAll,
}


def policy_named(name: str) -> ApprovalPolicy:
    """Return the policy that ``WorkerSettings.policy`` calls ``name``, guarded by ``FailClosed``.

    Raises:
        SettingsInvalid: there is none of this name.
    """
    if name not in POLICIES:
        raise SettingsInvalid(f"RMOS_POLICY: must be one of {', '.join(POLICIES)}")
    return FailClosed(POLICIES[name]())
