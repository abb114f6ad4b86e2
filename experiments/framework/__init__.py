"""The engine of the tables: experiments, their trainings, evaluations and cells."""
