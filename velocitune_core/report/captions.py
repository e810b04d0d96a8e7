"""Titles of the figures of a report, and how to read them."""

CAPTIONS = {  # figure → title, how to read it
    "change_per_domain": (
        "What each domain learnt",
        "A bar to the left is a held-out loss that fell, a bar to the right one that rose: text that the model "
        "predicted better before. The diamond is the target, what static training was predicted to reach.",
    ),
    "loss_per_domain": (
        "Held-out loss per domain over tokens",
        "Lower is better: a line should fall from the dashed initial loss to the dotted target. A line that ends above "
        "the dashed one is a domain that the model has partly forgotten.",
    ),
    "weights_over_time": (
        "Domain weights over the run",
        "The height of a band is the share of each batch drawn from that domain, its weight.",
    ),
    "search_weights": (
        "Domain weights over the search",
        "The search moved the weights as the strategy does, before the run, which holds their mean over the search "
        "from its first step.",
    ),
    "velocity_per_domain": (
        "Learning velocity per domain over tokens",
        "1 is the initial loss; 0 is the target, or a target that is not below the initial loss. The higher the line, "
        "the more weight the domain gains at an update.",
    ),
    "laws": (
        "Scaling law and target per domain",
        "A target is the value of the law (dashed where extrapolated) at the token budget. It is reliable if its "
        "points lie on the curve and the interval is short, and doubtful if it has a flag.",
    ),
    "predicted_against_reached": (
        "Predicted and reached loss per domain",
        "A bar to the right is a target above the final loss, which was too easy; a bar to the left is a target "
        "that was not reached. Under the static strategy the bar is the error of the prediction.",
    ),
    "tokens_and_epochs": (
        "Tokens and epochs per domain",
        "A bar longer than its outline is a domain whose text was repeated; a shorter one is a domain whose text was "
        "not all used.",
    ),
    "plan": (
        "Planned weights, and their outcome",
        "The line of a weight is its range over resamples of the runs: a long one is a weight that the runs do not "
        "determine, or that matters little. The diamond of a loss should lie on its line, the interval.",
    ),
    "plan_trade_offs": (
        "What the guards cost",
        "The blue line is the best mixture at each limit of one guard, by the law; the other guards of the objective "
        "are kept on it, so mixtures that break them may lie below. Static training, temperatures and equal shares "
        "(grey, the stronger the more even) cost no search.",
    ),
    "plan_who_pays": (
        "Who gains, and who pays for it",
        "A bar to the left is a set that the planned mixture is predicted to make better than static training does. "
        "Below the line are averages.",
    ),
    "plan_rates": (
        "Which domain teaches which set",
        "How much a token of a domain (column) is worth to a held-out set (row), as a share of what its best teacher "
        "is worth. Compare along a row only: rows have different units. Hatched and in parentheses: the runs do not "
        "determine the rate, so it comes from the prior.",
    ),
    "plan_runs": (
        "The law, tried on runs that it was not fitted to",
        "Each circle is a run of the swarm, predicted by a law of the other runs; on the dashed line the prediction is "
        "exact. The number is the mean error, nats per token.",
    ),
    "training_curve": (
        "Training loss and learning rate",
        "The loss is that of the batches, so it moves with the mixture, too: a domain that is easy lowers it.",
    ),
    "cost": (
        "Time and tokens spent",
        "The blue bars add up to the wall time of the run; the orange ones are work before it.",
    ),
}
LIMIT = "A dotted line is the limit that was asked for."  # this and what follows is added where it is drawn
REACHED = "An orange diamond is what the run reached, against the losses that static training is predicted to reach."
CHEAP = "Grey squares are the best mixture that costs no search."
