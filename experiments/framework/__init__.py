"""The engine of the papers' tables: experiments, their trainings, evaluations and cells."""
