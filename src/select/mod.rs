//! Which results are good: targets, Pareto frontier, ranking.
