"""What goes wrong between an agent and its model, as one readable sentence."""

from app.errors import MillstreamError


class ModelFailed(MillstreamError):
    """The model gave no answer, also when asked again as often as the agent's `retries` allow.

    The message names the model, its address, what it said and what to do; it holds no key.
    """

    code = "model_failed"


class NoModel(ModelFailed):
    """There is no model of that name, or none at all."""

    code = "no_model"
