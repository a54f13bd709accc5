"""The sections of a report, one file each; `report.section.Section` says what a section is."""
