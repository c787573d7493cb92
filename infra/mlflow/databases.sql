-- The databases of a tracking server and of sweeps, each with one user who reaches nothing else.
--
--   psql --no-psqlrc --set ON_ERROR_STOP=1 --file databases.sql postgres
--
-- Run by a superuser, as often as you like: what is there stays, passwords are set anew. They come from the environment,
-- and no statement with one is written to the server's log.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
\getenv mlflow_password MLFLOW_DB_PASSWORD
\getenv sweeps_password SWEEPS_DB_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY['mlflow', 'sweeps']) AS name
WHERE name NOT IN (SELECT rolname FROM pg_roles)
\gexec
ALTER ROLE mlflow PASSWORD :'mlflow_password';
ALTER ROLE sweeps PASSWORD :'sweeps_password';

-- Who owns a database may make tables in it: MLflow, its logins and Optuna make their own.
SELECT format('CREATE DATABASE %I OWNER %I', name, owner)
FROM (VALUES ('mlflow', 'mlflow'), ('mlflow_auth', 'mlflow'), ('sweeps', 'sweeps')) AS wanted (name, owner)
WHERE name NOT IN (SELECT datname FROM pg_database)
\gexec
REVOKE ALL ON DATABASE postgres, mlflow, mlflow_auth, sweeps FROM PUBLIC;
