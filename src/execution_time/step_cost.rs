//! Composition of graph, cost sources and host overhead into [`super::StepCost`].
