require('./cases.cjs');
