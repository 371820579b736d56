"""The exact posterior of a mixture under a linear operator, by another way: quadrature."""

import numpy as np
import pytest

from tests.oracles import mixture

MATRIX = {"one": np.array([[0.7, -1.2]]), "three": np.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 0.3]])}


@pytest.mark.parametrize("sigma", [0.2, 1.0])
@pytest.mark.parametrize("name", MATRIX)
def test_posterior_and_evidence_are_those_of_quadrature(x64, name, sigma):
    prior, matrix = mixture(2), MATRIX[name]
    y = matrix @ np.array([0.4, -0.3]) + 0.1
    line = np.linspace(-5, 5, 401)
    x = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    log_joint = np.array(prior.log_density(x, 1.0, 0.0))
    log_joint -= 0.5 * np.sum((y - x @ matrix.T) ** 2, axis=1) / sigma**2
    log_joint -= len(y) * np.log(2 * np.pi * sigma**2) / 2
    weights = np.exp(log_joint) * (line[1] - line[0]) ** 2
    evidence = weights.sum()
    assert prior.log_evidence(matrix, y, sigma) == pytest.approx(np.log(evidence), abs=1e-6)
    posterior = prior.posterior(matrix, y, sigma)
    log_density = np.asarray(posterior.log_density(x, 1.0, 0.0))
    seen = log_joint > log_joint.max() - 20
    np.testing.assert_allclose(log_density[seen], (log_joint - np.log(evidence))[seen], atol=1e-6)
    mean, cov = posterior.moments()
    share = weights / evidence
    np.testing.assert_allclose(mean, share @ x, atol=1e-6)
    np.testing.assert_allclose(cov, np.cov(x.T, aweights=share, ddof=0), atol=1e-6)
