"""The code that MLflow copies into every registered version; all else is in the installed package."""

from mlflow.models import set_model

from pipelines.serving.model import AdapterModel

set_model(AdapterModel())
