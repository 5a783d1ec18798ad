"""Every setting, with its unit in its name: one class and one file per role, prefix ``RMOS_``.

Wrong values stop the start with the name of the variable (``SettingsInvalid``).
"""
