"""Executors: jobs in, events out; they know neither Optuna nor MLflow, nor what a job stands for."""
