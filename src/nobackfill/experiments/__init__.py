"""Scenarios: generations × methods × seeds, trained, searched and assessed; `report.scenario_report` does it all."""
