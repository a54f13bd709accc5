"""The sections of a report, one file each; `_section.Section` says what a section is."""
