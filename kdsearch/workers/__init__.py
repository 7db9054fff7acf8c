"""Executors, which take jobs and report events; they do not use Optuna or MLflow."""
