"""The published evaluations, all that the data at hand allow, beside the published figures.

evaluations.py   what is evaluated: data set, task, number of views, protocol
data_sets.py     where its data lie, and where people get them
published.json   the figures, each with its table and source; published.py reads them
running.py       finds, runs, resumes, compares
"""

from nas3r.evaluation.suite.running import Suite, SuiteOptions, run_suite

__all__ = ["Suite", "SuiteOptions", "run_suite"]
