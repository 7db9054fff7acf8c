-- Optuna, MLflow's runs and its logins each need a database.
CREATE DATABASE logins;
CREATE DATABASE optuna;
