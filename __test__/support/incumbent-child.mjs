// The Sequelize adapter of the tests, in a process of its own: see `remote.mjs`.

import { serve } from './remote.mjs';
import { connectSequelize, IncumbentLikeStore } from './sequelize-models.mjs';

serve((db, options) => new IncumbentLikeStore(connectSequelize(db, options)));
