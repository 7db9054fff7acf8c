-- Optuna, MLflow's record and its logins need a database each.
CREATE DATABASE logins;
CREATE DATABASE optuna;
